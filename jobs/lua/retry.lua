-- id, id of a new job, how many jobs may be unfinished or '' → {id of the job that tries again, 'created' | 'known'},
-- {the state, 'refused' | 'full'}, or {} for an unknown job. The old record says who tried it again; its state stays. The new job has what the old one was asked, changes
-- included, but for an end and for checkpoints, which were asked of the old one alone.
local id, wanted, most = unpack(ARGV)
local state = get(id, 'state')
if not state then return {} end
local known = get(id, 'retried_as')
if known then return { known, known == wanted and 'created' or 'known' } end
if state ~= 'failed' and state ~= 'cancelled' then return { state, 'refused' } end
if full(most) then return { state, 'full' } end
local copied = { 'retry_of', id }
for _, field in ipairs({ 'kind', 'lane', 'spec', 'priority', 'max_seconds', 'webhook', 'settings' }) do
  local value = get(id, field)
  if value then
    table.insert(copied, field)
    table.insert(copied, value)
  end
end
create(wanted, { reason = 'retried', retry_of = id }, unpack(copied))
if next(settings_of(wanted)) then order(wanted, orders_of(wanted)) end
set(id, 'retried_as', wanted)
redis.call('ZADD', PREFIX .. 'unarchived', now(), id) -- the record on disk is to say so too
return { wanted, 'created' }
