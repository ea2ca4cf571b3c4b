-- When the peer allows the next attempt, if it asked for a wait: a repeated key makes a forward due no sooner.
ALTER TABLE forwards ADD COLUMN not_before INTEGER;
