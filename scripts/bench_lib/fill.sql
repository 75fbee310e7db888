-- Half of a dump's bytes are orders with jsonb and text, a fifth numbers, and three tenths bytes that no compression makes smaller
-- than half of their hexadecimal digits. The same rows each time; `mb` is the size of the dump in MB, about.
CREATE TABLE readings AS SELECT g AS id, g % 997 AS sensor, (g::bigint * 7919 % 1000003) / 100.0 AS value, timestamptz '2026-01-01 00:00Z' + g * interval '250 ms' AS at
FROM generate_series(1, :mb * 3880) AS g;
CREATE TABLE orders AS SELECT g AS id, timestamptz '2026-01-01 00:00Z' + g * interval '1 second' AS at, ('x' || left(digest, 6))::bit(24)::int % 20011 AS customer,
    jsonb_build_object('customer', 'customer ' || ('x' || left(digest, 6))::bit(24)::int % 20011, 'store', g % 31, 'amount', (g * 7919::bigint % 1000003) / 100.0,
        'reference', left(digest, 16), 'tags', jsonb_build_array(g % 7, 'a\b', E'two\nlines', (ARRAY['paid', 'sent', 'returned', 'open'])[1 + g % 4])) AS facts,
    (SELECT string_agg((ARRAY['order', 'customer', 'was', 'sent', 'from', 'store', 'and', 'paid', 'at', 'once', 'the', 'parcel', 'with', 'three', 'items',
        'waits', 'for', 'an', 'answer', 'because', 'address', 'could', 'not', 'be', 'found', 'in', 'our', 'list', 'since', 'Monday', 'please', 'call'])
        [1 + get_byte(words, n) % 32], ' ') FROM generate_series(0, 31 + g % 31) n) AS note
FROM (SELECT g, md5(g::text) AS digest, sha512(g::text::bytea) AS words FROM generate_series(1, :mb * 1000) AS g OFFSET 0) AS made;
CREATE TABLE files AS SELECT g AS id, (SELECT string_agg(sha512((g * 64 + n)::text::bytea), NULL) FROM generate_series(1, 64) n) AS content
FROM generate_series(1, :mb * 37) AS g;
ALTER TABLE readings ADD PRIMARY KEY (id);
ALTER TABLE orders ADD PRIMARY KEY (id);
ALTER TABLE files ADD PRIMARY KEY (id);
CREATE INDEX ON readings (sensor, at);
CREATE INDEX ON orders (customer);
CREATE INDEX ON orders (at);
ANALYZE;
