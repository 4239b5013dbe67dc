-- id, claim → 'ok' (from here on the job can no longer be cancelled), 'cancelling' or 'lost'
local id, claim = unpack(ARGV)
if not holds(id, claim) then return 'lost' end
if get(id, 'state') == 'cancelling' then return 'cancelling' end
set(id, 'publishing', claim)
-- Moving large files to a slow disk takes its time, and nobody renews meanwhile.
redis.call('ZADD', PREFIX .. 'leases', now() + 600000, id)
return 'ok'
