# A mail transfer agent as an application of its own, run with: twistd -ny mail.tac
from twisted.application.service import Application
from twisted.internet import reactor

from twisted_mta import Config, Listener, MailTransferAgent

config = Config(
    hostname="mx.example.net",
    state_dir="mail-state",
    local_domains=["example.net"],
    listeners=[Listener(endpoint="tcp:2525:interface=127.0.0.1")],
    routes={"*": "smtp://127.0.0.1:1025"},
    drain_timeout="30 s",
)
application = Application("mail")
MailTransferAgent(config, reactor=reactor).setServiceParent(application)
