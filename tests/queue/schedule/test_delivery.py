"""Deliveries: the recipients that share a transaction, and the aliases that their copy names."""

from attrs import evolve

from tests.tidy import TidyTestCase
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


def with_aliases(sent: Message, **aliases: tuple[Mailbox, ...]) -> Message:
    """Return a message whose recipients have aliases, by local part."""
    chains = ((each, aliases.get(each.mailbox.local_part, ())) for each in sent.envelope.recipients)
    recipients = tuple(
        evolve(each, aliases=chain, original=chain[0] if chain else None) for each, chain in chains
    )
    return sent.for_recipients(recipients)


def deliveries_of(sent: Message) -> list[Delivery]:
    return split(sent, route, lambda next_hop: None)


def aliases(delivery: Delivery) -> list[Mailbox]:
    """Return the aliases that the copy names, from the top."""
    lines = delivery.copy.trace.decode().split("\r\n")
    return [
        Mailbox.parse(line.removeprefix("Delivered-To: "))
        for line in lines
        if line.startswith("Delivered-To: ")
    ]


def recipients(delivery: Delivery) -> list[str]:
    return [each.mailbox.local_part for each in delivery.copy.envelope.recipients]


class Aliases(TidyTestCase):
    def test_a_copy_names_the_aliases_that_it_leaves_by(self) -> None:
        sent = with_aliases(message(1, "x@a.example"), x=(LIST, SUB))
        (delivery,) = deliveries_of(sent)
        fields = b"Delivered-To: sub@us.example\r\nDelivered-To: list@us.example\r\n"
        self.assertEqual(delivery.copy.trace, fields + sent.trace)
        self.assertEqual(delivery.message.trace, sent.trace)
        self.assertEqual(delivery.copy.body, sent.body)

    def test_a_copy_shows_no_other_address_that_the_sender_wrote(self) -> None:
        names = ("v@a.example", "w@b.example", "x@a.example", "y@a.example", "z@us.example")
        sent = with_aliases(message(1, *names), v=(LIST,), w=(LIST, DEEP), x=(SUB,), z=(LIST,))
        self.assertEqual(
            [(recipients(delivery), aliases(delivery)) for delivery in deliveries_of(sent)],
            [(["v", "w"], [DEEP, LIST]), (["x"], [SUB]), (["y"], []), (["z"], [])],
        )

    def test_a_copy_names_a_bounded_number_of_aliases(self) -> None:
        names = [f"x{number}" for number in range(40)]
        chains = {name: (LIST, Mailbox(f"sub-{name}", "us.example")) for name in names}
        sent = with_aliases(message(1, *(f"{name}@a.example" for name in names)), **chains)
        deliveries = deliveries_of(sent)
        self.assertEqual([len(recipients(delivery)) for delivery in deliveries], [15, 15, 10])
        for delivery in deliveries:
            self.assertEqual(aliases(delivery)[-1], LIST)
            self.assertEqual(len(aliases(delivery)), 1 + len(recipients(delivery)))

    def test_a_copy_for_a_maildir_names_no_aliases(self) -> None:
        sent = with_aliases(message(1, "a@us.example", "b@us.example"), a=(LIST,), b=(SUB,))
        (delivery,) = deliveries_of(sent)
        self.assertEqual((recipients(delivery), delivery.copy), (["a", "b"], sent))

    def test_a_copy_does_not_name_an_alias_of_its_mailbox_name(self) -> None:
        for mailbox in ("carol@a.example", "Carol+tag@a.example"):
            own = Mailbox("carol", "a.example")
            local_part = Mailbox.parse(mailbox).local_part
            (delivery,) = deliveries_of(
                with_aliases(message(1, mailbox), **{local_part: (LIST, own)})
            )
            self.assertTrue(delivery.copy.trace.startswith(b"Delivered-To: list@us.example\r\nRec"))

    def test_a_copy_that_names_an_alias_is_not_shared_with_the_mailbox_of_its_name(self) -> None:
        carol, eve = Mailbox("carol", "a.example"), Mailbox("eve", "a.example")
        sent = message(1, "carol@a.example", "eve@a.example", "x@a.example")
        sent = with_aliases(sent, carol=(LIST, carol), eve=(LIST, carol, eve), x=(LIST, carol))
        self.assertEqual(
            [(recipients(delivery), aliases(delivery)) for delivery in deliveries_of(sent)],
            [(["carol"], [LIST]), (["eve"], [carol, LIST]), (["x"], [carol, LIST])],
        )
