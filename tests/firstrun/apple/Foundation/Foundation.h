// Declarations in place of Apple's, of what compile_kernels.m uses: enough for a compiler's check of its syntax.

#pragma once
#include <stdbool.h>
#include <stddef.h>

typedef struct stream FILE;
extern FILE *stdout, *stderr;
int fprintf(FILE * stream, const char * format, ...) __attribute__((format(printf, 2, 3)));
size_t fwrite(const void * data, size_t size, size_t count, FILE * stream);
int fputc(int letter, FILE * stream);
int fflush(FILE * stream);

typedef bool BOOL; // on arm64
typedef unsigned long NSUInteger;
typedef long NSInteger;
typedef double NSTimeInterval;
typedef struct { unsigned long state; id __unsafe_unretained * itemsPtr; unsigned long * mutationsPtr;
                 unsigned long extra[5]; } NSFastEnumerationState;
enum { NSUTF8StringEncoding = 4 };
#define nil ((id) 0)

@protocol NSCopying
@end
@protocol NSObject
@end
__attribute__((objc_root_class)) @interface NSObject <NSObject>
+ (instancetype)new;
- (id)mutableCopy;
- (NSUInteger)countByEnumeratingWithState:(NSFastEnumerationState *)state
                                  objects:(id __unsafe_unretained [])buffer
                                    count:(NSUInteger)length;
@end
@interface NSString : NSObject <NSCopying>
@property(readonly) const char * UTF8String;
@property(readonly) NSUInteger length;
+ (instancetype)stringWithUTF8String:(const char *)text;
+ (instancetype)stringWithFormat:(NSString *)format, ...;
@end
@interface NSError : NSObject
@property(readonly) NSString * localizedDescription;
@end
@interface NSString (Files)
+ (instancetype)stringWithContentsOfFile:(NSString *)path encoding:(NSUInteger)encoding error:(NSError **)error;
@end
@interface NSNumber : NSObject
@property(readonly) int intValue;
@property(readonly) float floatValue;
@property(readonly) BOOL boolValue;
+ (NSNumber *)numberWithBool:(BOOL)value;
+ (NSNumber *)numberWithChar:(char)value;
+ (NSNumber *)numberWithInt:(int)value;
+ (NSNumber *)numberWithUnsignedInteger:(NSUInteger)value;
+ (NSNumber *)numberWithDouble:(double)value;
+ (NSNumber *)numberWithUnsignedLong:(unsigned long)value;
+ (NSNumber *)numberWithUnsignedLongLong:(unsigned long long)value;
@end
@interface NSData : NSObject
@property(readonly) const void * bytes;
@property(readonly) NSUInteger length;
+ (instancetype)dataWithContentsOfFile:(NSString *)path;
@end
@interface NSDate : NSObject
@property(readonly) NSTimeInterval timeIntervalSinceNow;
+ (instancetype)date;
@end
@interface NSArray : NSObject
@property(readonly) NSUInteger count;
- (BOOL)containsObject:(id)one;
@end
@interface NSDictionary : NSObject
@property(readonly) NSArray * allValues;
- (id)objectForKeyedSubscript:(id)key;
+ (instancetype)dictionaryWithObjects:(const id[])objects forKeys:(const id<NSCopying>[])keys count:(NSUInteger)count;
@end
@interface NSMutableDictionary : NSDictionary
- (void)setObject:(id)value forKeyedSubscript:(id<NSCopying>)key;
@end
@interface NSJSONSerialization : NSObject
+ (NSData *)dataWithJSONObject:(id)value options:(NSUInteger)options error:(NSError **)error;
+ (id)JSONObjectWithData:(NSData *)data options:(NSUInteger)options error:(NSError **)error;
@end
