-- id, claim, 'late' | 'dead', error (JSON) → 1 when the lease was taken away
-- late: only if the lease is past; dead: its owner is known to be gone, so there is nothing to wait for.
local id, claim, why, error = unpack(ARGV)
if not holds(id, claim) then
  if TERMINAL[get(id, 'state') or 'failed'] then redis.call('ZREM', PREFIX .. 'leases', id) end
  return 0
end
local lease = redis.call('ZSCORE', PREFIX .. 'leases', id)
if why == 'late' and lease and tonumber(lease) > now() then return 0 end
crashed(id, error)
return 1
