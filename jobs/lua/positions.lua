-- id, id, … → for each its place in its lane's queue, 1 for the next; 0 for what is not queued
local places = {}
for i, id in ipairs(ARGV) do
  places[i] = 0
  if get(id, 'state') == 'queued' then
    local lane, own, before = get(id, 'lane'), get(id, 'priority') or 'normal', 0
    for _, priority in ipairs(PRIORITIES) do
      if priority == own then break end
      before = before + redis.call('ZCARD', due_key(lane, priority))
    end
    places[i] = before + redis.call('ZRANK', due_key(lane, own), id) + 1
  end
end
return places
