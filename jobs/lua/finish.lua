-- id, token → a verb's answer. Stop at the next step, with the epoch that the recipe's keep names; what is paused goes on for that.
local id, token = unpack(ARGV)
local known, state = answered(token), get(id, 'state')
if known then return known end
if not state then return {} end
if get(id, 'kind') ~= 'train' then return answer(token, state, 'not_for_kind') end
if TERMINAL[state] or state == 'cancelling' then return answer(token, state, 'refused') end
local orders, waits = orders_of(id), state == 'paused' or state == 'pausing'
if orders.finish and not waits then return answer(token, state, 'unchanged') end
if publishing(id) then return answer(token, state, 'publishing') end
if get(id, 'claim') == '0' then return answer(token, state, 'nothing_to_keep') end
if not orders.finish then
  orders.finish = true
  order(id, orders)
  event(id, 'finish_requested', '{}')
end
if waits then resume(id, 'finish') end
return answer(token, state, 'done')
