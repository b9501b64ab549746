IF octet_length(message) > 7999 AND its_old <> 'null' AND its_row <> 'null' THEN
    message := head || its_key || its_old_key || ',"row":' || its_row || ',"old":null,"changed":' || its_changes
               || ',"reduced":"row"' || tail;
END IF;
IF octet_length(message) > 7999 AND its_changes <> 'null' THEN
    message := head || its_key || its_old_key || ',"row":null,"old":null,"changed":' || its_changes
               || ',"reduced":"changed"' || tail;
END IF;
IF octet_length(message) > 7999 THEN
    message := head || its_key || its_old_key || ',"row":null,"old":null,"changed":null,"reduced":"key"' || tail;
END IF;
IF octet_length(message) > 7999 THEN
    message := head || 'null,"row":null,"old":null,"changed":null,"reduced":"nothing"' || tail;
END IF;
[[send_as_it_is]]
