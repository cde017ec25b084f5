-- name: set_settings
select set_config(s.name, s.value, false)
from unnest(%(names)s::text[], %(values)s::text[]) as s (name, value)

-- name: listen
listen {channel}

-- name: ping
select 1
