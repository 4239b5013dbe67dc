-- id, claim, 'late' | 'dead', error (JSON), grace in ms, lease in ms → 1 when the lease was taken away
-- late: only if the lease is past and was seen to be so for the time of grace: after an outage every lease is past, while
-- the workers live and are about to renew. dead: its owner is known to be gone, so there is nothing to wait for.
-- A lease that seems to last twice as long as any was given before the clock was set back: who lives renews it.
local id, claim, why, error, grace, longest = unpack(ARGV)
if not holds(id, claim) then
  if TERMINAL[get(id, 'state') or 'failed'] then redis.call('ZREM', PREFIX .. 'leases', id) end
  return 0
end
local lease = redis.call('ZSCORE', PREFIX .. 'leases', id)
if why == 'late' then
  local left = lease and tonumber(lease) - now() or 0
  if left > 0 and left <= 2 * longest then return 0 end
  if tonumber(get(id, 'late_since') or now()) > now() then unset(id, 'late_since') end
  redis.call('HSETNX', job_key(id), 'late_since', now())
  if now() - get(id, 'late_since') < tonumber(grace) then return 0 end
end
crashed(id, error, true)
return 1
