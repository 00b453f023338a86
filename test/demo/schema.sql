-- The tables of both servers. Each has a serial id of its own making; what is the same on every server is the ISO code.

CREATE TABLE countries (
    id serial PRIMARY KEY,
    alpha_2 text NOT NULL UNIQUE,
    alpha_3 text NOT NULL,
    name text NOT NULL,
    official_name text,
    visits integer NOT NULL DEFAULT 0
);

-- the states and provinces of a country, which may lie in one another
CREATE TABLE subdivisions (
    id serial PRIMARY KEY,
    code text NOT NULL UNIQUE,
    name text NOT NULL,
    type text NOT NULL,
    country_id integer NOT NULL REFERENCES countries,
    parent_id integer REFERENCES subdivisions
);
CREATE INDEX ON subdivisions (country_id);
CREATE INDEX ON subdivisions (parent_id);

CREATE TABLE languages (
    id serial PRIMARY KEY,
    alpha_3 text NOT NULL UNIQUE,
    name text NOT NULL,
    type text NOT NULL
);

CREATE TABLE currencies (
    id serial PRIMARY KEY,
    alpha_3 text NOT NULL UNIQUE,
    name text NOT NULL
);

-- which country issues which currency
CREATE TABLE country_currency (
    country_id integer REFERENCES countries ON DELETE CASCADE,
    currency_id integer REFERENCES currencies ON DELETE CASCADE,
    PRIMARY KEY (country_id, currency_id)
);
CREATE INDEX ON country_currency (currency_id);
