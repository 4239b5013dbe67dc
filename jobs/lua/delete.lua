-- id, token → a verb's answer. The job's idempotency key and its place in what it tried again are free again.
local id, token = unpack(ARGV)
local known, state = answered(token), get(id, 'state')
if known then return known end
if not state then return {} end
if not TERMINAL[state] then return answer(token, state, 'refused') end
local key, tried = get(id, 'idempotency'), get(id, 'retry_of')
if key then
  key = PREFIX .. 'idempotency:' .. key
  if string.match(redis.call('GET', key) or '', '^(%S+)') == id then redis.call('DEL', key) end
end
if tried and get(tried, 'retried_as') == id then
  unset(tried, 'retried_as')
  redis.call('ZADD', PREFIX .. 'unarchived', now(), tried) -- the record on disk is to say so too
end
forget(id)
return answer(token, state, 'done')
