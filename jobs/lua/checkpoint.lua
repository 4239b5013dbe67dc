-- id, token → a verb's answer
local id, token = unpack(ARGV)
local known, state = answered(token), get(id, 'state')
if known then return known end
if not state then return {} end
if get(id, 'kind') ~= 'train' then return answer(token, state, 'not_for_kind') end
if TERMINAL[state] or state == 'cancelling' then return answer(token, state, 'refused') end
if publishing(id) then return answer(token, state, 'publishing') end
local orders = orders_of(id)
orders.checkpoint = orders.checkpoint + 1
order(id, orders)
event(id, 'checkpoint_requested', cjson.encode({ number = orders.checkpoint }))
return answer(token, state, 'done')
