-- id, token, priority or '', then name, value as JSON, name, value, … of settings → a verb's answer
local id, token, priority = unpack(ARGV)
local known, state = answered(token), get(id, 'state')
if known then return known end
if not state then return {} end
if #ARGV > 3 and get(id, 'kind') ~= 'train' then return answer(token, state, 'not_for_kind') end
if TERMINAL[state] or state == 'cancelling' then return answer(token, state, 'refused') end
local settings, changed = settings_of(id), false
for i = 4, #ARGV, 2 do
  if settings[ARGV[i]] ~= ARGV[i + 1] then
    settings[ARGV[i]] = ARGV[i + 1]
    changed = true
  end
end
local moved = priority ~= '' and priority ~= (get(id, 'priority') or 'normal')
if not changed and not moved then return answer(token, state, 'unchanged') end
if publishing(id) then return answer(token, state, 'publishing') end
local data = '{"settings":' .. settings_json(settings)
if changed then
  set(id, 'settings', cjson.encode(settings))
  order(id, orders_of(id))
end
if moved then
  local due = redis.call('ZSCORE', queue_of(id), id)
  redis.call('ZREM', queue_of(id), id)
  set(id, 'priority', priority)
  if due then redis.call('ZADD', queue_of(id), due, id) end
  data = data .. ',"priority":' .. cjson.encode(priority)
end
event(id, 'settings_changed', data .. '}')
return answer(token, state, 'done')
