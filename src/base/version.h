/* version.h - the project's own version, from one place. */
#ifndef RFUAV_BASE_VERSION_H
#define RFUAV_BASE_VERSION_H

#define RFUAV_VERSION "3.0.0"

#endif
