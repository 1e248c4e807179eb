-- Token buckets by the generic cell rate algorithm, as src/resilience/rate/buckets.rs has them: of a bucket one time is kept, when it will be
-- full again. Takes a token of each bucket, or of none.
--
-- KEYS: the buckets. ARGV: four numbers for each, the time that a token takes to come back and the time that an empty bucket takes to fill,
-- each as seconds and nanoseconds. Times are kept in two numbers because those of Lua are exact up to 2^53 only.
--
-- Returns 0 and the time until each bucket is full, as seconds and nanoseconds; or the number of the first bucket that has no token, and the
-- time until it has one.
local time = redis.call('TIME')
local now_s, now_n = tonumber(time[1]), tonumber(time[2]) * 1000

local function carried(s, n)
  if n >= 1000000000 then return s + 1, n - 1000000000 end
  if n < 0 then return s - 1, n + 1000000000 end
  return s, n
end

local full, answer = {}, {0}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 4
  local token_s, token_n = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local depth_s, depth_n = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local s, n = now_s, now_n
  local kept = redis.call('GET', key)
  if kept then
    local kept_s, kept_n = string.match(kept, '^(%d+)%.(%d+)$')
    kept_s, kept_n = tonumber(kept_s), tonumber(kept_n)
    if kept_s and (kept_s > s or (kept_s == s and kept_n > n)) then s, n = kept_s, kept_n end
  end
  s, n = carried(s + token_s, n + token_n)
  local after_s, after_n = carried(s - now_s, n - now_n)
  local over_s, over_n = carried(after_s - depth_s, after_n - depth_n)
  if over_s > 0 or (over_s == 0 and over_n > 0) then return {i, over_s, over_n} end
  full[i] = {s, n, after_s, after_n}
  answer[i * 2], answer[i * 2 + 1] = after_s, after_n
end
for i, key in ipairs(KEYS) do
  local s, n, after_s, after_n = unpack(full[i])
  -- What is full is as good as nothing.
  local lifetime = after_s * 1000 + math.ceil(after_n / 1000000)
  redis.call('SET', key, string.format('%.0f.%09.0f', s, n), 'PX', string.format('%.0f', lifetime))
end
return answer
