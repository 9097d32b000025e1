"""The reader of records that ask for reports on TLS."""

from __future__ import annotations

from twisted_mta.reports.tls.record import report_record

from ..scaling import Reader

READERS = (
    Reader(
        name="tls report record",
        read=lambda octets: report_record([octets]),
        words=(
            *(b";", b"; ", b"=", b" ", b"\t", b",", b", ", b"a", b"a=b;", b"rua=", b"rua=;"),
            *(b"mailto:", b"mailto:a@b,", b"https://", b"https://a/,", b"//", b":1", b"%41", b"%"),
            *(b"@", b"?", b"#", b"[", b"]", b".", b"\xff", b"\r\n"),
        ),
        frames=(
            (b"v=TLSRPTv1;", b""),
            (b"v=TLSRPTv1; rua=", b""),
            (b"v=TLSRPTv1; rua=https://", b"/"),
            (b"v=TLSRPTv1", b"; rua=mailto:a@b.example"),
        ),
    ),
)
