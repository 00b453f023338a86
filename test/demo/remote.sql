-- The remote has been in use: its ids start elsewhere, and some rows are there already, not quite as the local has them.

ALTER SEQUENCE countries_id_seq RESTART WITH 1001;
ALTER SEQUENCE subdivisions_id_seq RESTART WITH 100001;
ALTER SEQUENCE languages_id_seq RESTART WITH 50001;
ALTER SEQUENCE currencies_id_seq RESTART WITH 701;

INSERT INTO countries (alpha_2, alpha_3, name, visits) VALUES
    ('FR', 'FRA', 'la France', 12),
    ('BU', 'BUR', 'Burma', 3),
    ('DE', 'DEU', 'Deutschland', 41);
INSERT INTO currencies (alpha_3, name) VALUES ('EUR', 'euro'), ('CHF', 'Franken');
INSERT INTO subdivisions (code, name, type, country_id)
    SELECT 'DE-BE', 'Berlin', 'Land', id FROM countries WHERE alpha_2 = 'DE';
