SELECT synchro.add_table('countries', '{alpha_2}', skip => '{visits}');
SELECT synchro.add_table('subdivisions', '{code}');
SELECT synchro.add_table('languages', '{alpha_3}');
SELECT synchro.add_table('currencies', '{alpha_3}');
SELECT synchro.add_table('country_currency');   -- its primary key says it all
