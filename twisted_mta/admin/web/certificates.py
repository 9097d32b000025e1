"""The certificates of a site: those of all listeners by server name, and ours for other names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...config import Config, SNICertificate
from ...config.change import WARNING
from ...interfaces import WallTime
from ...system.work import Work
from ...tls.certificate_files import certificate_file, certificate_files
from ...tls.certificates import CertificateFiles, CertifiedKey
from ...tls.self_signed import SELF_SIGNED
from ...tls.server import ServerContext, TLSSettings


class SiteCertificates:
    """The certificates of a site.

    Args:
        config: the files.
        wall_time: for the dates of certificates.

    Attributes:
        context: of the handshakes; nothing is loaded yet.
    """

    def __init__(self, config: Config, *, wall_time: WallTime) -> None:
        self._config = config
        self._wall_time = wall_time
        self.context = ServerContext(_tls_settings(config))

    def load_issued(self) -> Work[Callable[[], Sequence[str]]]:
        """Read the certificate that an authority has issued, and no other file (`load`)."""
        issued = certificate_file(self._config.state_dir)
        known = [key for key in self.context.keys if key.certificate_file != issued]
        return self.load(self._config, known)

    def load(
        self, config: Config, known: Sequence[CertifiedKey] = ()
    ) -> Work[Callable[[], Sequence[str]]]:
        """Read the certificates of a configuration; nothing is in force yet.

        Args:
            config: the settings.
            known: certificates that stay as they are, and are not read.

        Returns:
            A function that puts them and the settings in force, and returns printable lines about
            changed files, and warnings.

        Raises:
            CertificateError: a file cannot be used.
        """
        loaded = yield from self.context.load(_tls_settings(config), CertificateFiles(known))

        def use() -> Sequence[str]:
            self._config = config
            lines = self.context.use(loaded)
            warnings = self.context.warnings(self._wall_time())
            return [*lines, *(f"{WARNING}{each}" for each in warnings)]

        return use


def _tls_settings(config: Config) -> TLSSettings:
    """Return the certificates of all listeners by server name, and ours for other names."""
    certificate, key = certificate_files(config, SELF_SIGNED)
    by_name: dict[str, SNICertificate] = {}
    for listener in config.listeners:
        for each in listener.sni:
            by_name.update((name, each) for name in each.names if name not in by_name)
    return TLSSettings(
        certificate_file=certificate,
        key_file=key,
        sni=tuple(dict.fromkeys(by_name.values())),
    )
