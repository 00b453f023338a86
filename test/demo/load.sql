-- ISO 3166-1, 3166-2, 639-3 and 4217 from the iso-codes package, as any application would load them.

INSERT INTO countries (alpha_2, alpha_3, name, official_name)
    SELECT alpha_2, alpha_3, name, official_name
    FROM jsonb_to_recordset(pg_read_file('/usr/share/iso-codes/json/iso_3166-1.json')::jsonb -> '3166-1')
        AS c (alpha_2 text, alpha_3 text, name text, official_name text);

-- Burma became Myanmar in 1989, BU became MM. Here it still has to.
UPDATE countries SET alpha_2 = 'BU', alpha_3 = 'BUR', name = 'Burma', official_name = NULL WHERE alpha_2 = 'MM';

-- without parents at first: the file has children before them
INSERT INTO subdivisions (code, name, type, country_id)
    SELECT s.code, s.name, s.type, c.id
    FROM jsonb_to_recordset(pg_read_file('/usr/share/iso-codes/json/iso_3166-2.json')::jsonb -> '3166-2')
        AS s (code text, name text, type text)
    JOIN countries c ON c.alpha_2 = replace(split_part(s.code, '-', 1), 'MM', 'BU');

-- the package names a parent by its whole code or, in older versions, by what follows the country
UPDATE subdivisions AS child
    SET parent_id = parent.id
    FROM jsonb_to_recordset(pg_read_file('/usr/share/iso-codes/json/iso_3166-2.json')::jsonb -> '3166-2')
        AS s (code text, parent text)
    JOIN subdivisions parent ON parent.code IN (s.parent, split_part(s.code, '-', 1) || '-' || s.parent)
    WHERE s.parent IS NOT NULL AND child.code = s.code;

INSERT INTO languages (alpha_3, name, type)
    SELECT alpha_3, name, type
    FROM jsonb_to_recordset(pg_read_file('/usr/share/iso-codes/json/iso_639-3.json')::jsonb -> '639-3')
        AS l (alpha_3 text, name text, type text);

INSERT INTO currencies (alpha_3, name)
    SELECT alpha_3, name
    FROM jsonb_to_recordset(pg_read_file('/usr/share/iso-codes/json/iso_4217.json')::jsonb -> '4217')
        AS c (alpha_3 text, name text);

-- a currency's code begins with the code of the country that issues it; those that begin with X belong to none
INSERT INTO country_currency (country_id, currency_id)
    SELECT c.id, u.id
    FROM currencies u
    JOIN countries c ON c.alpha_2 = replace(left(u.alpha_3, 2), 'MM', 'BU');
