-- id, claim, lease in ms → the job's state, or 'lost'. A lease that is past renews too: an outage must not end a healthy job.
local id, claim, lease = unpack(ARGV)
if not holds(id, claim) then return 'lost' end
redis.call('ZADD', PREFIX .. 'leases', now() + lease, id)
return get(id, 'state')
