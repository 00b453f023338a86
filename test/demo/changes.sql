-- a country gets another natural key, and keeps its subdivisions
UPDATE countries SET alpha_2 = 'MM', alpha_3 = 'MMR', name = 'Myanmar' WHERE alpha_2 = 'BU';
-- one statement, thousands of rows
UPDATE subdivisions SET type = lower(type);
-- many deletes, and one that cascades into country_currency
DELETE FROM languages WHERE type = 'E';
DELETE FROM currencies WHERE alpha_3 = 'USN';
