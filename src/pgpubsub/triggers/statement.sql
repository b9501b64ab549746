-- Made by pgpubsub. It tells of all that a statement has changed and never fails: what goes wrong is a warning, and is
-- counted.
#variable_conflict use_column
<<told>>
DECLARE
    operation CONSTANT text := TG_OP;
    total bigint;
    concerned bigint;
    one_key text;
    its_keys text := '';
    listed bigint := 0;
    room int;
    head text;
    tail text;
    message text;
    text_key text;
    its_wake text;
BEGIN
    BEGIN
        head := '{"op":"' || lower(TG_OP) || [[place]];
        tail := [[tail]];
        IF TG_OP = 'TRUNCATE' THEN
            message := head || 'null,"row": null,"old": null,"changed": null,"reduced": null' || tail;
            [[make_truncate]]
        ELSIF TG_OP = 'INSERT' THEN
            [[make of inserted]]
        ELSIF TG_OP = 'UPDATE' THEN
            [[make of updated]]
        ELSE
            [[make of deleted]]
        END IF;
    EXCEPTION WHEN OTHERS OR ASSERT_FAILURE THEN
        [[fail]]
    END;
    [[send]]
    RETURN NULL;
END
