# Turns files into C constants: with -DNAME=sql, schema/queries/claim.sql becomes sql_claim. Run by CMake: -DOUT=DIR -DFILES=a;b
string(TOUPPER ${NAME} guard)
set(header "/* Made by scripts/embed.cmake. */\n#ifndef RELAY_${guard}_H\n#define RELAY_${guard}_H\n")
set(source "/* Made by scripts/embed.cmake. */\n#include \"${NAME}.h\"\n")
foreach(file IN LISTS FILES)
  get_filename_component(name ${file} NAME_WE)
  string(TOLOWER ${name} name)
  file(READ ${file} bytes HEX)
  # At the beginning of a line, "SET search_path" becomes "SET LOCAL search_path": psql runs a file in a session of its own, the relay in
  # a transaction, whose session may be lent by a pooler.
  string(REPLACE "0a534554207365617263685f70617468" "0a534554204c4f43414c207365617263685f70617468" bytes "${bytes}")
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes "${bytes}")
  string(APPEND header "extern const char ${NAME}_${name}[];\n")
  string(APPEND source "const char ${NAME}_${name}[] = {\n${bytes}0x00};\n")
endforeach()
string(APPEND header "#endif\n")
file(WRITE ${OUT}/${NAME}.h "${header}")
file(WRITE ${OUT}/${NAME}.c "${source}")
