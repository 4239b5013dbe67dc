-- id, claim, lease in ms or 0 to look only → {the job's state, version of its orders}, or {'lost', 0}
-- A lease that is past renews too: an outage must not end a healthy job.
local id, claim, lease = unpack(ARGV)
if not holds(id, claim) then return { 'lost', 0 } end
if tonumber(lease) > 0 then hold(id, lease) end
return told(id)
