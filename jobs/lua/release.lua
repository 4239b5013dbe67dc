-- id, claim, 'stopped' | 'crashed', error (JSON) → the job's state, or 'lost'
-- stopped: its process was stopped in good order, and the job goes back to its place in the queue or is paused; crashed: it
-- counts.
local id, claim, how, error = unpack(ARGV)
if get(id, 'given_back') == claim .. ' ' .. how and get(id, 'claim') == claim then return get(id, 'state') end
if not holds(id, claim) then return 'lost' end
set(id, 'given_back', claim .. ' ' .. how)
local state = get(id, 'state')
if how == 'crashed' then
  crashed(id, error)
elseif state == 'cancelling' then
  move(id, 'cancelled', '{}')
elseif state == 'pausing' and not publishing(id) then
  move(id, 'paused', '{"reason":"stopped"}')
else
  queue(id, publishing(id) and '-inf' or get(id, 'place') or moment(), '{"reason":"stopped"}')
end
return get(id, 'state')
