/* fft_lock.h - FFTW may plan on one thread at a time; running plans needs no lock. */
#ifndef RFUAV_DATA_FFT_LOCK_H
#define RFUAV_DATA_FFT_LOCK_H

void fft_lock(void);
void fft_unlock(void);

#endif
