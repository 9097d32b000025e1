"""The receiving side: the protocol on its transport, and the delivery that queues."""
