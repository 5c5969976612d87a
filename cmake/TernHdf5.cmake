# HDF5's C library as one target without the tools' extra libraries (curl, zlib ...) that FindHDF5 lists.
add_library(tern_hdf5 INTERFACE)
target_include_directories(tern_hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
list(GET HDF5_C_LIBRARIES 0 TERN_HDF5_LIBRARY)
target_link_libraries(tern_hdf5 INTERFACE ${TERN_HDF5_LIBRARY})
