-- What is known of a delivery under way: the state that it tells of, attempts so far, lease of the present one.
local function delivery(id, event_id)
  local state, attempts, lease = string.match(get(id, 'delivery:' .. event_id) or '', '^(%S+) (%d+) (%d+)$')
  return state, tonumber(attempts), tonumber(lease)
end
