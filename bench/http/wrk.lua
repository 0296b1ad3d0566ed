-- Requests in flight together (the number after --), and the result as one line of JSON. Latencies in microseconds.
local depth = 1

function init(arguments)
   depth = tonumber(arguments[1] or "1")
   local one = wrk.format()
   batch = string.rep(one, depth)
end

function request()
   return batch
end

function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "seconds": %.6f, "p50": %d, "p99": %d, "p999": %d, "bad": %d, "broken": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
      e.status, e.connect + e.read + e.write + e.timeout))
end
