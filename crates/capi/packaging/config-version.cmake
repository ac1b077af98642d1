# As in Cargo: 0.1.2 is compatible with a request for 0.1.1 or 0.1, and not with one for 0.2 or 0.0.
set(PACKAGE_VERSION "@VERSION@")
string(REGEX MATCH "^(0\\.[0-9]+|[1-9][0-9]*)" _stateroom_series "${PACKAGE_VERSION}")

if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_EXACT TRUE)
endif()
if(PACKAGE_FIND_VERSION VERSION_LESS_EQUAL PACKAGE_VERSION
   AND PACKAGE_FIND_VERSION VERSION_GREATER_EQUAL _stateroom_series)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()

unset(_stateroom_series)
