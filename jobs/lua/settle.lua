-- id, claim, 'succeeded' | 'failed' | 'cancelled', result or error (JSON) → the job's state, or 'lost'
local id, claim, to, data = unpack(ARGV)
if get(id, 'given_back') == claim .. ' ' .. to and get(id, 'claim') == claim then return get(id, 'state') end
if not holds(id, claim) then return 'lost' end
set(id, 'given_back', claim .. ' ' .. to)
if get(id, 'state') == 'cancelling' then
  to = 'cancelled'
  data = '{}'
elseif to == 'succeeded' then
  set(id, 'result', data)
elseif to == 'failed' then
  set(id, 'error', data)
  data = cjson.encode(shown(data))
end
move(id, to, data)
return to
