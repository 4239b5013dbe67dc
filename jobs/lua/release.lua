-- id, claim, 'stopped' | 'crashed', error (JSON) → the job's state, or 'lost'
-- stopped: the worker went away in good order, and the job goes back to the queue; crashed: it counts.
local id, claim, how, error = unpack(ARGV)
if not holds(id, claim) then return 'lost' end
if how == 'crashed' then
  crashed(id, error)
elseif get(id, 'state') == 'cancelling' then
  move(id, 'cancelled', '{}')
else
  queue(id, now(), '{"reason":"stopped"}')
end
return get(id, 'state')
