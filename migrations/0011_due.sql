-- A forward that is not at rest is due at some time, and one at rest never is: the indexes ask for that, in place of
-- lists of states, which cost every write a temporary table for each index.
UPDATE forwards SET next_attempt_at = NULL WHERE state IN ('forwarded', 'refused', 'expired');
UPDATE forwards SET next_attempt_at = updated_at
    WHERE next_attempt_at IS NULL AND state IN ('reserved', 'sending', 'unknown');

DROP INDEX forwards_not_at_rest;
DROP INDEX forwards_by_age;
DROP INDEX forwards_of_tenant_not_at_rest;
-- The reconciler takes up whatever is not at rest; the index holds nothing else, so it stays small.
CREATE INDEX forwards_not_at_rest ON forwards (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
-- Old forwards are swept by age.
CREATE INDEX forwards_by_age ON forwards (updated_at) WHERE next_attempt_at IS NULL;
-- A tenant's forwards that are not at rest are counted against its quota.
CREATE INDEX forwards_of_tenant_not_at_rest ON forwards (tenant_id, run_id) WHERE next_attempt_at IS NOT NULL;
