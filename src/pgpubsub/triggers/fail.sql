BEGIN
    RAISE WARNING [[warning]], SQLERRM USING ERRCODE = SQLSTATE;
EXCEPTION WHEN OTHERS THEN  -- the client's encoding may not have its letters
    NULL;
END;
BEGIN
    [[failures]]
EXCEPTION WHEN OTHERS THEN
    NULL;
END;
message := '{"op":"' || lower(TG_OP) || [[place]]
           || 'null,"row": null,"old": null,"changed": null,"reduced": "nothing"' || [[tail]];
[[make_least]]
