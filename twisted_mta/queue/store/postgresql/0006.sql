-- Version 6: bodies of up to 8 KiB stay in the row of their message. Beside it, each would be several
-- rows with an index of their own, to be written and removed with each message.

ALTER TABLE message SET (toast_tuple_target = 8160);
