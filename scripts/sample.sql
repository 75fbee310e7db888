-- A sample database that looks like a real one, and holds what dumps get wrong.
--
-- Loaded by scripts/quickstart and by the tests, into an empty database, with
-- `psql -X -v ON_ERROR_STOP=1`, as a superuser or as the database's owner. PostgreSQL 13 and newer, no
-- extension. Deterministic: two loads give equal dumps, so no random(), no now(), no OID left to chance.

\set ON_ERROR_STOP on
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET standard_conforming_strings = on;

BEGIN;

CREATE SCHEMA shop;
CREATE SCHEMA audit;
CREATE SCHEMA metrics;
CREATE SCHEMA "Odd ""Names"" ✓";
CREATE SCHEMA empty;

COMMENT ON SCHEMA shop IS 'What is sold, to whom, and what came of it';
COMMENT ON SCHEMA "Odd ""Names"" ✓" IS E'Quotes '' and " and a \\ backslash,\nover two lines';


-- Types -----------------------------------------------------------------------------------------

CREATE TYPE shop.order_state AS ENUM ('new', 'paid', 'shipped', 'returned', 'it''s complicated');
CREATE TYPE shop.money_amount AS (amount numeric(12, 2), currency char(3));
CREATE TYPE shop.price_range AS RANGE (subtype = numeric);
CREATE DOMAIN shop.email AS text COLLATE "C" CHECK (VALUE ~ '^[^@\s]+@[^@\s]+$');
CREATE DOMAIN shop.percent AS numeric(5, 2) DEFAULT 0 NOT NULL CONSTRAINT within_bounds CHECK (VALUE BETWEEN 0 AND 100);
COMMENT ON TYPE shop.order_state IS 'In the order in which they happen';


-- Functions that tables use ---------------------------------------------------------------------

-- Its body looks like a dump's data block, and ends one early for a reader that does not parse.
CREATE FUNCTION audit.looks_like_a_dump(name text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $body$
DECLARE
    trap text := $inner$
COPY shop.orders (id, customer_id) FROM stdin;
1	1
\.
\connect postgres
DROP DATABASE postgres;
--
-- PostgreSQL database dump complete
--
$inner$;
BEGIN
    RETURN name || ': ' || length(trap)::text;
END
$body$;

CREATE FUNCTION shop.slug(title text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT trim(BOTH '-' FROM regexp_replace(lower(title), '[^a-z0-9]+', '-', 'g'))
$$;
COMMENT ON FUNCTION shop.slug(text) IS 'Used by an index: it must exist before the data''s indexes do';

CREATE FUNCTION shop.add_up(total numeric, price shop.money_amount) RETURNS numeric LANGUAGE sql IMMUTABLE AS
    'SELECT total + coalesce((price).amount, 0)';
CREATE AGGREGATE shop.sum_of(shop.money_amount) (SFUNC = shop.add_up, STYPE = numeric, INITCOND = '0');

CREATE FUNCTION shop.same_currency(a shop.money_amount, b shop.money_amount) RETURNS boolean LANGUAGE sql IMMUTABLE AS
    'SELECT (a).currency = (b).currency';
CREATE OPERATOR shop.=#= (LEFTARG = shop.money_amount, RIGHTARG = shop.money_amount, FUNCTION = shop.same_currency);


-- Customers, products, orders -------------------------------------------------------------------

CREATE SEQUENCE shop.invoice_number START 1000000 INCREMENT 7 MINVALUE -5 MAXVALUE 99999999 CACHE 10 CYCLE;
SELECT setval('shop.invoice_number', 1234567, false);
CREATE SEQUENCE shop.countdown INCREMENT -3 START -1 MINVALUE -9000000000 MAXVALUE -1;
SELECT nextval('shop.countdown') FROM generate_series(1, 4);

CREATE TABLE shop.customers (
    id          integer GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 2) PRIMARY KEY,
    email       shop.email UNIQUE,
    full_name   text NOT NULL,
    note        text,
    tags        text[] NOT NULL DEFAULT '{}',
    profile     jsonb NOT NULL DEFAULT '{}',
    discount    shop.percent,
    born        date,
    created_at  timestamptz NOT NULL,
    dropped     integer,
    referred_by integer REFERENCES shop.customers DEFERRABLE INITIALLY DEFERRED
);
ALTER TABLE shop.customers DROP COLUMN dropped;
COMMENT ON TABLE shop.customers IS E'People who buy.\n\tTabs and lines in a comment too.';
COMMENT ON COLUMN shop.customers.note IS 'NULL: nobody looked. Empty: nothing to say.';

INSERT INTO shop.customers (email, full_name, note, tags, profile, discount, born, created_at, referred_by)
SELECT 'user' || n || '@example.com',
       (ARRAY['Ana Souza', 'Jürgen Groß', '山田 太郎', 'O''Neill', 'نور', 'Zoë "Zed" Ång', 'Łukasz 🚲'])[1 + n % 7] || ' ' || n,
       CASE n % 9
           WHEN 0 THEN NULL
           WHEN 1 THEN ''
           WHEN 2 THEN E'tab\there, newline\nthere, return\rand \\ backslash'
           WHEN 3 THEN E'\\.'
           WHEN 4 THEN E'before\n\\.\nafter'
           WHEN 5 THEN '\N'
           WHEN 6 THEN 'NULL'
           WHEN 7 THEN E'-- \'quoted\'; DROP TABLE x; $$ $body$ \b\f\v\x01\x7f'
           ELSE repeat('a longer note that fills a page; ', 3)
       END,
       CASE n % 4
           WHEN 0 THEN '{}'
           WHEN 1 THEN ARRAY['vip', NULL, 'NULL', '']
           WHEN 2 THEN ARRAY['with "quotes"', 'with, comma', E'with \\ backslash', '{braces}']
           ELSE ARRAY[md5(n::text)]
       END,
       jsonb_build_object('visits', n * 37 % 1000, 'city', 'Town ' || n % 100, 'nested',
                          jsonb_build_object('list', jsonb_build_array(n, NULL, true, E'line\nbreak', 'ünï')),
                          'key "with" quotes', md5(n::text)),
       (n * 13 % 10000) / 100.0,
       CASE n % 50 WHEN 0 THEN 'infinity'::date WHEN 1 THEN '0044-03-15 BC' WHEN 2 THEN NULL ELSE '1950-01-01'::date + n % 20000 END,
       timestamptz '2020-01-01 00:00:00+00' + n * interval '17 minutes 3.000001 seconds',
       CASE WHEN n % 5 = 0 THEN 10 + 2 * (n / 5) END
FROM generate_series(1, 10000) AS n;

CREATE TABLE shop.products (
    id         bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    title      text NOT NULL,
    price      shop.money_amount NOT NULL,
    net        numeric(12, 2) NOT NULL,
    gross      numeric(12, 2) GENERATED ALWAYS AS (round(net * 1.19, 2)) STORED,
    valid_for  shop.price_range NOT NULL,
    picture    bytea,
    weight     double precision,
    attributes json,
    search     tsvector GENERATED ALWAYS AS (to_tsvector('simple'::regconfig, title)) STORED,
    CONSTRAINT net_is_positive CHECK (net >= 0),
    CONSTRAINT known_currency CHECK ((price).currency IN ('EUR', 'BRL', 'USD'))
);
INSERT INTO shop.products (id, title, price, net, valid_for, picture, weight, attributes)
SELECT n * 3,
       'Product ' || n || ' – ' || substr(md5('title' || n), 1, 12),
       ROW(n * 1.25, (ARRAY['EUR', 'BRL', 'USD'])[1 + n % 3])::shop.money_amount,
       n * 1.25,
       CASE n % 4
           WHEN 0 THEN 'empty'::shop.price_range
           WHEN 1 THEN shop.price_range(NULL, n)
           WHEN 2 THEN shop.price_range(n, NULL, '(]')
           ELSE shop.price_range(n, n + 100.5, '[]')
       END,
       CASE n % 6 WHEN 0 THEN NULL WHEN 1 THEN ''::bytea
                  ELSE (SELECT string_agg(decode(md5(n || '/' || part), 'hex'), '\x00'::bytea ORDER BY part)
                        FROM generate_series(1, 20) AS part) END,
       CASE n % 100 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' WHEN 2 THEN '-Infinity' WHEN 3 THEN '-0' WHEN 4 THEN 5e-324
                    ELSE n / 7.0::double precision END,
       '{"b": 1,   "a": [1, 2], "b": "keys twice, spaces kept"}'
FROM generate_series(1, 3000) AS n;
SELECT setval(pg_get_serial_sequence('shop.products', 'id'), 9001);

CREATE TABLE shop.orders (
    id          bigint NOT NULL,
    customer_id integer NOT NULL REFERENCES shop.customers,
    state       shop.order_state NOT NULL DEFAULT 'new',
    invoice     bigint DEFAULT nextval('shop.invoice_number') UNIQUE,
    placed_at   timestamptz NOT NULL,
    delivery    tstzrange,
    total       shop.money_amount,
    changed     integer NOT NULL DEFAULT 0,
    PRIMARY KEY (id)
);
INSERT INTO shop.orders (id, customer_id, state, invoice, placed_at, delivery, total)
SELECT n,
       10 + 2 * (n * 7919 % 10000),
       (enum_range(NULL::shop.order_state))[1 + n % 5],
       n * 7,
       timestamptz '2021-01-01 00:00:00+00' + n * interval '11 minutes',
       CASE WHEN n % 3 > 0 THEN tstzrange(timestamptz '2021-01-02 00:00:00+00' + n * interval '11 minutes', NULL) END,
       ROW(n % 5000 / 10.0, 'EUR')::shop.money_amount
FROM generate_series(1, 25000) AS n;

CREATE TABLE shop.order_lines (
    order_id   bigint NOT NULL REFERENCES shop.orders ON DELETE CASCADE,
    line       smallint NOT NULL,
    product_id bigint NOT NULL REFERENCES shop.products ON UPDATE CASCADE,
    quantity   integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, line)
);
INSERT INTO shop.order_lines
SELECT n, line, 3 * (1 + (n * 31 + line) % 3000), 1 + (n + line) % 9
FROM generate_series(1, 25000) AS n, generate_series(1, 1 + n % 3) AS line;

-- Two tables that refer to each other: no order of creation suits both.
CREATE TABLE shop.departments (id integer PRIMARY KEY, name text NOT NULL, head integer);
CREATE TABLE shop.employees (id integer PRIMARY KEY, department integer NOT NULL REFERENCES shop.departments, name text);
ALTER TABLE shop.departments ADD CONSTRAINT head_is_employed FOREIGN KEY (head) REFERENCES shop.employees
    DEFERRABLE INITIALLY DEFERRED;
INSERT INTO shop.departments SELECT n, 'Department ' || n, n * 10 FROM generate_series(1, 20) AS n;
INSERT INTO shop.employees SELECT n * 10, n, 'Head of ' || n FROM generate_series(1, 20) AS n;

-- What was deferred is checked now, or its tables take no index.
SET CONSTRAINTS ALL IMMEDIATE;

CREATE TABLE shop.rooms (
    room integer, guests int4range NOT NULL,
    EXCLUDE USING gist (guests WITH &&)
);
INSERT INTO shop.rooms SELECT n, int4range(n * 10, n * 10 + 9) FROM generate_series(1, 50) AS n;

CREATE INDEX customers_by_slug ON shop.customers (shop.slug(full_name), lower(email));
CREATE INDEX customers_profile ON shop.customers USING gin (profile jsonb_path_ops);
CREATE INDEX products_search ON shop.products USING gin (search);
CREATE INDEX orders_open ON shop.orders (placed_at DESC NULLS LAST) INCLUDE (customer_id) WHERE state = 'new';
CREATE UNIQUE INDEX "one head" ON shop.departments (head);
CREATE STATISTICS shop.orders_state (dependencies) ON customer_id, state FROM shop.orders;
ALTER TABLE shop.orders ALTER COLUMN state SET STATISTICS 500;
ALTER TABLE shop.orders CLUSTER ON orders_pkey;
ALTER TABLE shop.customers REPLICA IDENTITY FULL;


-- Partitions ------------------------------------------------------------------------------------

CREATE TABLE metrics.events (
    at      timestamptz NOT NULL,
    region  text NOT NULL,
    kind    smallint NOT NULL,
    value   real,
    payload jsonb,
    PRIMARY KEY (at, region, kind)
) PARTITION BY RANGE (at);
CREATE TABLE metrics.events_2023 PARTITION OF metrics.events
    FOR VALUES FROM ('2023-01-01 00:00:00+00') TO ('2024-01-01 00:00:00+00');
CREATE TABLE metrics.events_2024 PARTITION OF metrics.events
    FOR VALUES FROM ('2024-01-01 00:00:00+00') TO ('2025-01-01 00:00:00+00') PARTITION BY LIST (region);
CREATE TABLE metrics."events_2024_são paulo" PARTITION OF metrics.events_2024 FOR VALUES IN ('são paulo', 'rio');
CREATE TABLE metrics.events_2024_berlin PARTITION OF metrics.events_2024 FOR VALUES IN ('berlin');
CREATE TABLE metrics.events_2024_rest PARTITION OF metrics.events_2024 DEFAULT;
CREATE TABLE metrics.events_else PARTITION OF metrics.events DEFAULT;
CREATE INDEX events_by_kind ON metrics.events (kind, at);
INSERT INTO metrics.events
SELECT timestamptz '2023-06-01 00:00:00+00' + n * interval '25 minutes',
       (ARRAY['são paulo', 'berlin', 'rio', 'tokyo'])[1 + n % 4],
       n % 100,
       CASE n % 1000 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' WHEN 2 THEN '-Infinity' ELSE n * 0.1 END,
       CASE WHEN n % 10 = 0 THEN jsonb_build_object('n', n, 'hash', md5(n::text)) END
FROM generate_series(1, 40000) AS n;

CREATE TABLE metrics.counters (id integer, name text, hits bigint) PARTITION BY HASH (id);
CREATE TABLE metrics.counters_0 PARTITION OF metrics.counters FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE metrics.counters_1 PARTITION OF metrics.counters FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO metrics.counters SELECT n, 'counter ' || n, n::bigint * 1000000007 FROM generate_series(1, 1000) AS n;

CREATE TABLE metrics.base (id integer PRIMARY KEY, seen date);
CREATE TABLE metrics.derived (extra text DEFAULT 'inherited') INHERITS (metrics.base);
INSERT INTO metrics.base SELECT n, '2024-02-29' FROM generate_series(1, 10) AS n;
INSERT INTO metrics.derived SELECT n, '2024-12-31' FROM generate_series(100, 110) AS n;

CREATE UNLOGGED TABLE metrics.cache (key text PRIMARY KEY, value xml);
INSERT INTO metrics.cache (key) SELECT md5('cache' || n) FROM generate_series(1, 100) AS n;


-- Names, values and types that trip text formats ------------------------------------------------

CREATE TABLE "Odd ""Names"" ✓"."Table with spaces, ""quotes"", 'ticks' and a \ backslash" (
    "select"        integer PRIMARY KEY,
    "Column ""q"""  text DEFAULT E'it''s \\ "default"',
    "名前"          text,
    "tab	inside"   text
);
INSERT INTO "Odd ""Names"" ✓"."Table with spaces, ""quotes"", 'ticks' and a \ backslash"
VALUES (1, DEFAULT, '太郎', E'\t'), (2, NULL, '', E'\n'), (3, E'\\.', E'\\N', E'\\\\.'), (4, ' leading', 'trailing ', '\n');

CREATE TABLE "Odd ""Names"" ✓".no_columns ();
INSERT INTO "Odd ""Names"" ✓".no_columns DEFAULT VALUES;
CREATE TABLE "Odd ""Names"" ✓".no_rows (id integer, name text);
COMMENT ON TABLE "Odd ""Names"" ✓".no_columns IS '';

CREATE TABLE public.one_column (line text);
INSERT INTO public.one_column VALUES
    (E'\\.'), (''), (NULL), ('\N'), (E'\\'), (E'\n'), (E'\r\n'), (E'\\.\n\\.'), ('COPY public.one_column (line) FROM stdin;'),
    ('-- PostgreSQL database dump complete'), (E'--\n-- PostgreSQL database dump complete\n--\n'), (E'\\connect template1'),
    (E'\\unrestrict x'), (repeat('wide ', 100000));

CREATE TABLE public.every_type (
    id smallint PRIMARY KEY, b boolean, i2 smallint, i8 bigint, n numeric, r real, d double precision, m money, c char(5), v varchar(10),
    t time, tz timetz, iv interval, ts timestamp, ip inet, net cidr, mac macaddr, u uuid, bits bit(5), vbits bit varying,
    p point, l line, bx box, pa path, po polygon, ci circle, q tsquery, jp jsonpath, matrix integer[][], ranges int8range[],
    orders shop.order_state[], amount shop.money_amount, pct shop.percent DEFAULT 12.5
);
INSERT INTO public.every_type VALUES
    (1, true, -32768, -9223372036854775808, 'NaN', 'NaN', '-Infinity', '-1.50', 'ab', 'é', '24:00', '12:00+05:30',
     '-1 year 2 days -03:04:05.6', 'infinity', '::1', '10.0.0.0/8', '08:00:2b:01:02:03', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
     B'10101', B'', '(1,2)', '{1,-1,0}', '(2,2),(1,1)', '[(0,0),(1,1)]', '((0,0),(1,0),(0,1))', '<(0,0),2>', 'a & !b', '$.a[*] ? (@ > 1)',
     '{{1,2},{3,NULL}}', '{"[1,5)",empty}', '{new,"it''s complicated"}', ROW(NULL, 'EUR'), 100),
    (2, false, 32767, 9223372036854775807, 123456789012345678901234567890.123456789, 3.4028235e38, 1.7976931348623157e308, '0', '', '',
     '00:00', '23:59:59.999999-12', '178000000 years', '4713-01-01 00:00:00 BC', '192.168.1.1/24', '2001:db8::/32', 'ff:ff:ff:ff:ff:ff',
     '00000000-0000-0000-0000-000000000000', B'00000', B'1', NULL, NULL, NULL, NULL, NULL, NULL, '', '$', '[2:3]={7,8}', '{}', '{}', NULL, 0);
INSERT INTO public.every_type (id, pct) VALUES (3, 1);


-- Large objects: with numbers of their own, so that two loads are equal ---------------------------

CREATE TABLE public.documents (id integer PRIMARY KEY, name text, content oid);
INSERT INTO public.documents
SELECT n, 'document ' || n, lo_from_bytea((990000 + n)::oid, decode(repeat(md5('document' || n), n * n * 300), 'hex'))
FROM generate_series(1, 5) AS n;
SELECT lo_create(990099);
COMMENT ON LARGE OBJECT 990001 IS 'The first of them';
GRANT SELECT ON LARGE OBJECT 990002 TO PUBLIC;


-- Views, triggers, policies, rights ----------------------------------------------------------------

CREATE VIEW shop.revenue AS
    SELECT date_trunc('month', placed_at AT TIME ZONE 'UTC')::date AS month, count(*) AS orders, shop.sum_of(total) AS total
    FROM shop.orders GROUP BY 1;
CREATE VIEW shop.paid WITH (security_barrier) AS
    SELECT * FROM shop.orders WHERE state = 'paid' WITH CASCADED CHECK OPTION;
CREATE RECURSIVE VIEW shop.referrals (id, depth) AS
    SELECT id, 0 FROM shop.customers WHERE referred_by IS NULL
    UNION ALL SELECT c.id, r.depth + 1 FROM shop.customers c JOIN referrals r ON c.referred_by = r.id WHERE c.id <> r.id;
CREATE MATERIALIZED VIEW shop.best_sellers AS
    SELECT p.id, p.title, sum(l.quantity) AS sold
    FROM shop.order_lines l JOIN shop.products p ON p.id = l.product_id
    GROUP BY p.id, p.title ORDER BY sold DESC, p.id LIMIT 100;
CREATE UNIQUE INDEX ON shop.best_sellers (id);
CREATE MATERIALIZED VIEW shop.not_yet AS SELECT * FROM shop.revenue WITH NO DATA;
COMMENT ON VIEW shop.revenue IS 'By month';

CREATE TABLE audit.log (
    id bigserial PRIMARY KEY, tbl regclass NOT NULL, op text NOT NULL, old_row jsonb, new_row jsonb,
    at timestamptz NOT NULL DEFAULT timestamptz '2024-05-06 07:08:09+00'
);
CREATE FUNCTION audit.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, audit AS $$
BEGIN
    INSERT INTO audit.log (tbl, op, old_row, new_row)
    VALUES (TG_RELID, TG_OP, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END, CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
    RETURN NULL;
END
$$;
CREATE FUNCTION shop.count_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := OLD.changed + 1;
    RETURN NEW;
END
$$;
-- A load that fired these would be seen: rows would be logged, and counted, twice.
CREATE TRIGGER record AFTER INSERT OR UPDATE OR DELETE ON shop.orders FOR EACH ROW EXECUTE FUNCTION audit.record();
CREATE TRIGGER count_changes BEFORE UPDATE ON shop.orders FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*)
    EXECUTE FUNCTION shop.count_changes();
CREATE TRIGGER switched_off AFTER DELETE ON shop.customers FOR EACH ROW EXECUTE FUNCTION audit.record();
ALTER TABLE shop.customers DISABLE TRIGGER switched_off;
UPDATE shop.orders SET state = 'paid' WHERE id % 50 = 0;
SELECT setval('audit.log_id_seq', 777777, true);

CREATE RULE no_deletes AS ON DELETE TO audit.log DO INSTEAD NOTHING;

-- Enabled, not forced: the owner dumps every row, anyone else sees some.
ALTER TABLE shop.employees ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_department ON shop.employees FOR SELECT TO PUBLIC USING (department < 10);
CREATE POLICY "no writes" ON shop.employees AS RESTRICTIVE FOR INSERT TO PUBLIC WITH CHECK (false);

GRANT USAGE ON SCHEMA shop TO PUBLIC;
GRANT SELECT ON shop.products, shop.revenue TO PUBLIC;
GRANT SELECT (id, full_name), UPDATE (note) ON shop.customers TO PUBLIC;
REVOKE EXECUTE ON FUNCTION audit.record() FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA metrics GRANT SELECT ON TABLES TO PUBLIC;

CREATE TEXT SEARCH CONFIGURATION shop.plain (COPY = pg_catalog.simple);
CREATE COLLATION shop.bytewise (LOCALE = 'C');
CREATE TABLE shop.sorted (name text COLLATE shop.bytewise PRIMARY KEY) WITH (fillfactor = 70, autovacuum_enabled = off);
INSERT INTO shop.sorted VALUES ('a'), ('B'), ('ä'), ('_'), ('é'), ('Z');

COMMIT;

REFRESH MATERIALIZED VIEW shop.best_sellers;
-- Its owner may not analyze the shared catalogs, and need not hear of it.
SET client_min_messages = error;
ANALYZE;
