"""Which recipients share a transaction, and which aliases their copy names."""

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import Host, NextHop
from twisted_mta.queue.schedule.delivery import Delivery, split

from ..mail import message

LIST = Mailbox("list", "us.example")
SUB = Mailbox("sub", "us.example")
DEEP = Mailbox("deep", "us.example")


def route(mailbox: Mailbox) -> NextHop:
    if mailbox.domain == "us.example":
        return NextHop("maildir")
    return NextHop("smtp", hosts=(Host("hub.example"),))


def led(sent: Message, **aliases: tuple[Mailbox, ...]) -> Message:
    """Return a message to whose recipients aliases led, by local-part."""
    chains = ((each, aliases.get(each.mailbox.local_part, ())) for each in sent.envelope.recipients)
    recipients = tuple(
        evolve(each, aliases=chain, original=chain[0] if chain else None) for each, chain in chains
    )
    return sent.for_recipients(recipients)


def parts(sent: Message) -> list[Delivery]:
    return split(sent, route, lambda next_hop: None)


def named(part: Delivery) -> list[Mailbox]:
    """Return what the copy names, from the top."""
    lines = part.copy.trace.decode().split("\r\n")
    return [
        Mailbox.parse(line.removeprefix("Delivered-To: "))
        for line in lines
        if line.startswith("Delivered-To: ")
    ]


def who(part: Delivery) -> list[str]:
    return [each.mailbox.local_part for each in part.copy.envelope.recipients]


class Aliases(SynchronousTestCase):
    def test_a_copy_names_those_by_which_it_leaves(self) -> None:
        sent = led(message(1, "x@a.example"), x=(LIST, SUB))
        (part,) = parts(sent)
        fields = b"Delivered-To: sub@us.example\r\nDelivered-To: list@us.example\r\n"
        self.assertEqual(part.copy.trace, fields + sent.trace)
        self.assertEqual(part.message.trace, sent.trace)
        self.assertEqual(part.copy.body, sent.body)

    def test_what_the_sender_wrote_beside_them_is_not_to_be_seen_in_it(self) -> None:
        names = ("v@a.example", "w@b.example", "x@a.example", "y@a.example", "z@us.example")
        sent = led(message(1, *names), v=(LIST,), w=(LIST, DEEP), x=(SUB,), z=(LIST,))
        self.assertEqual(
            [(who(part), named(part)) for part in parts(sent)],
            [(["v", "w"], [DEEP, LIST]), (["x"], [SUB]), (["y"], []), (["z"], [])],
        )

    def test_a_list_of_many_lists_makes_no_header_without_end(self) -> None:
        names = [f"x{number}" for number in range(40)]
        chains = {name: (LIST, Mailbox(f"sub-{name}", "us.example")) for name in names}
        sent = led(message(1, *(f"{name}@a.example" for name in names)), **chains)
        found = parts(sent)
        self.assertEqual([len(who(part)) for part in found], [15, 15, 10])
        for part in found:
            self.assertEqual(named(part)[-1], LIST)
            self.assertEqual(len(named(part)), 1 + len(who(part)))

    def test_a_maildir_is_no_other_host(self) -> None:
        sent = led(message(1, "a@us.example", "b@us.example"), a=(LIST,), b=(SUB,))
        (part,) = parts(sent)
        self.assertEqual((who(part), part.copy), (["a", "b"], sent))

    def test_the_mailbox_behind_an_alias_of_its_name_is_not_told_of_a_loop(self) -> None:
        for mailbox in ("carol@a.example", "Carol+tag@a.example"):
            own = Mailbox("carol", "a.example")
            local_part = Mailbox.parse(mailbox).local_part
            (part,) = parts(led(message(1, mailbox), **{local_part: (LIST, own)}))
            self.assertTrue(part.copy.trace.startswith(b"Delivered-To: list@us.example\r\nRec"))

    def test_nor_beside_another_copy_that_names_it(self) -> None:
        carol, eve = Mailbox("carol", "a.example"), Mailbox("eve", "a.example")
        sent = message(1, "carol@a.example", "eve@a.example", "x@a.example")
        sent = led(sent, carol=(LIST, carol), eve=(LIST, carol, eve), x=(LIST, carol))
        self.assertEqual(
            [(who(part), named(part)) for part in parts(sent)],
            [(["carol"], [LIST]), (["eve"], [carol, LIST]), (["x"], [carol, LIST])],
        )
