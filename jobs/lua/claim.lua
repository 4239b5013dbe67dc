-- lane, owner, token of this attempt, lease in ms → {id, claim, spec, kind} or {} when nothing is due
local lane, owner, token, lease = unpack(ARGV)
local token_key = PREFIX .. 'claim:' .. token
local id = redis.call('GET', token_key)
if not id then
  id = redis.call('ZRANGEBYSCORE', due_key(lane), '-inf', now() + 1, 'LIMIT', 0, 1)[1]
  if not id then return {} end
  redis.call('SET', token_key, id, 'PX', 60000)
  local claim = redis.call('HINCRBY', job_key(id), 'claim', 1)
  set(id, 'owner', owner)
  redis.call('HSETNX', job_key(id), 'started_at', now())
  move(id, 'running', cjson.encode({ claim = claim, owner = owner }))
  redis.call('ZADD', PREFIX .. 'leases', now() + lease, id)
end
return { id, tonumber(get(id, 'claim')), get(id, 'spec'), get(id, 'kind') }
