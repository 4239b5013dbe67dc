-- id, kind, lane, spec, idempotency key or '', digest of the request, time to live of the key in ms, how many jobs may be
-- unfinished or '', then more fields of the record: name, value, name, value, …
-- → {id, 'created' | 'known' | 'conflict' | 'full'}
local id, kind, lane, spec, key, digest, ttl, most = unpack(ARGV)
if redis.call('EXISTS', job_key(id)) == 1 then return { id, 'created' } end
if key ~= '' then
  local known = redis.call('GET', PREFIX .. 'idempotency:' .. key)
  if known then
    local known_id, known_digest = string.match(known, '^(%S+) (%S+)$')
    return { known_id, known_digest == digest and 'known' or 'conflict' }
  end
end
if full(most) then return { id, 'full' } end
if key ~= '' then redis.call('SET', PREFIX .. 'idempotency:' .. key, id .. ' ' .. digest, 'PX', ttl) end
create(id, { reason = 'submitted' }, 'kind', kind, 'lane', lane, 'spec', spec, unpack(ARGV, 9))
return { id, 'created' }
