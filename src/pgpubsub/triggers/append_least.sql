BEGIN
    text_key := NULL;
    [[append]]
EXCEPTION WHEN OTHERS THEN
    its_wake := NULL;
END;
