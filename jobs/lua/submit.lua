-- id, kind, lane, spec, idempotency key or '', digest of the request, time to live of the key in ms, then more fields of
-- the record: name, value, name, value, … → {id, 'created' | 'known' | 'conflict'}
local id, kind, lane, spec, key, digest, ttl = unpack(ARGV)
if redis.call('EXISTS', job_key(id)) == 1 then return { id, 'created' } end
if key ~= '' then
  local known = redis.call('GET', PREFIX .. 'idempotency:' .. key)
  if known then
    local known_id, known_digest = string.match(known, '^(%S+) (%S+)$')
    return { known_id, known_digest == digest and 'known' or 'conflict' }
  end
  redis.call('SET', PREFIX .. 'idempotency:' .. key, id .. ' ' .. digest, 'PX', ttl)
end
create(id, { reason = 'submitted' }, 'kind', kind, 'lane', lane, 'spec', spec, unpack(ARGV, 8))
return { id, 'created' }
