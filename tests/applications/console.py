"""The mail application of Twisted's documentation, without anything of twisted-mta.

It differs from the documentation in one point: messages are kept in a list, not printed.
"""

from twisted.cred.portal import IRealm
from twisted.internet import defer
from twisted.mail import smtp
from zope.interface import implementer


@implementer(smtp.IMessageDelivery)
class ConsoleMessageDelivery:
    def __init__(self, console):
        self.console = console

    def receivedHeader(self, helo, origin, recipients):
        return b"Received: ConsoleMessageDelivery"

    def validateFrom(self, helo, origin):
        # All addresses are accepted
        return origin

    def validateTo(self, user):
        # Only messages directed to the "console" user are accepted.
        if user.dest.local == b"console":
            return lambda: ConsoleMessage(self.console)
        raise smtp.SMTPBadRcpt(user)


@implementer(smtp.IMessage)
class ConsoleMessage:
    def __init__(self, console):
        self.console = console
        self.lines = []

    def lineReceived(self, line):
        self.lines.append(line)

    def eomReceived(self):
        self.console.append(b"\n".join(self.lines))
        self.lines = None
        return defer.succeed(None)

    def connectionLost(self):
        # There was an error, throw away the stored lines
        self.lines = None


@implementer(IRealm)
class SimpleRealm:
    def __init__(self, console):
        self.console = console
        self.loggedOut = 0

    def requestAvatar(self, avatarId, mind, *interfaces):
        if smtp.IMessageDelivery in interfaces:
            return smtp.IMessageDelivery, ConsoleMessageDelivery(self.console), self.logout
        raise NotImplementedError()

    def logout(self):
        self.loggedOut += 1


def consoleFactory(Factory):
    """The factory of Twisted's documentation; its base class is the import that changes."""

    class ConsoleSMTPFactory(Factory):
        def __init__(self, console, *a, **kw):
            Factory.__init__(self, *a, **kw)
            self.delivery = ConsoleMessageDelivery(console)

        def buildProtocol(self, addr):
            p = Factory.buildProtocol(self, addr)
            p.delivery = self.delivery
            return p

    return ConsoleSMTPFactory
