# The targets stateroom_wasmi::stateroom_wasmi, the shared library, and stateroom_wasmi::static.
get_filename_component(_stateroom_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

if(NOT TARGET stateroom_wasmi::stateroom_wasmi)
  add_library(stateroom_wasmi::stateroom_wasmi SHARED IMPORTED)
  set_target_properties(stateroom_wasmi::stateroom_wasmi PROPERTIES
    IMPORTED_LOCATION "${_stateroom_prefix}/lib/@SONAME@"
    IMPORTED_SONAME "@SONAME@"
    INTERFACE_INCLUDE_DIRECTORIES "${_stateroom_prefix}/include")

  add_library(stateroom_wasmi::static STATIC IMPORTED)
  set_target_properties(stateroom_wasmi::static PROPERTIES
    IMPORTED_LOCATION "${_stateroom_prefix}/lib/libstateroom_wasmi.a"
    INTERFACE_LINK_LIBRARIES "pthread;dl;m;gcc_s"
    INTERFACE_INCLUDE_DIRECTORIES "${_stateroom_prefix}/include")
endif()

unset(_stateroom_prefix)
