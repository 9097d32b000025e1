-- Version 5: the machine of each attempt, for explanations.

ALTER TABLE attempt ADD COLUMN machine text;  -- the random id in its state directory; NULL: not known
