-- Forwards that were given up while their run may exist: few, and worth an operator's look. The index holds nothing
-- else, so that a forward which ends well costs nothing more.
CREATE INDEX forwards_given_up ON forwards (updated_at) WHERE state = 'expired' AND outcome = 'unknown';
