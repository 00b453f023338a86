-- All rows without any serial id, one a line: an id stands for the natural key of what it points at. Knows nothing of
-- synchro; visits is not synchronized and left out.

COPY (
    SELECT line
    FROM (
        SELECT jsonb_build_array('country', alpha_2, alpha_3, name, official_name) AS line
            FROM countries
        UNION ALL
        SELECT jsonb_build_array('subdivision', s.code, s.name, s.type, c.alpha_2, p.code)
            FROM subdivisions s
            JOIN countries c ON c.id = s.country_id
            LEFT JOIN subdivisions p ON p.id = s.parent_id
        UNION ALL
        SELECT jsonb_build_array('language', alpha_3, name, type)
            FROM languages
        UNION ALL
        SELECT jsonb_build_array('currency', alpha_3, name)
            FROM currencies
        UNION ALL
        SELECT jsonb_build_array('country_currency', c.alpha_2, u.alpha_3)
            FROM country_currency
            JOIN countries c ON c.id = country_id
            JOIN currencies u ON u.id = currency_id
    ) AS contents
    ORDER BY line::text COLLATE "C"
) TO STDOUT
